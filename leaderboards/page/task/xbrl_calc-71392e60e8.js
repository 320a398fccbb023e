/* finbench leaderboard */
finbench("task/xbrl_calc-71392e60e8", '[[172,0.0,null,null,null,0.8667,461.4,1249.33,3,0,null,null,null,0.0],[173,0.0,null,null,null,0.9333,413.8,1393.33,0,0,null,1,null,0.0]]');
