/* finbench leaderboard */
finbench("task/xbrl_values-82dc142d1b", '[[140,0.0096,null,null,null,0.6526,578.1,430.58,3,0,null,null,null,0.0096],[141,0.0,null,null,null,0.9175,546.7,455.34,2,0,null,null,null,0.0]]');
