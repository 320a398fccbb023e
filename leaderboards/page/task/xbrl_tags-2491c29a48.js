/* finbench leaderboard */
finbench("task/xbrl_tags-2491c29a48", '[[173,0.63333,null,null,null,1.0,431.6,1358.67,3,0,null,1,null,0.63333],[172,0.0,null,null,null,0.0,365.5,1604.33,2,0,null,null,null,0.0]]');
