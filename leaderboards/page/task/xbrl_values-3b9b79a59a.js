/* finbench leaderboard */
finbench("task/xbrl_values-3b9b79a59a", '[[173,0.4,null,null,null,0.9333,448.9,1300.33,3,0,null,1,null,0.4],[172,0.0,null,null,null,0.5667,471.1,1239.0,3,0,null,null,null,0.0]]');
