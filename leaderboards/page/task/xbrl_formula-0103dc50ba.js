/* finbench leaderboard */
finbench("task/xbrl_formula-0103dc50ba", '[[172,0.0,null,null,null,0.0,493.6,1174.67,3,0,null,null,null,0.0],[173,0.0,null,null,null,1.0,400.2,1449.0,0,0,null,1,null,0.0]]');
