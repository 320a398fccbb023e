/* finbench leaderboard */
finbench("task/fomc-7100185693", '[[12,0.04545,0.0,0.09524,null,0.18,94.1,750.5,3,0,null,null,null,0.05797]]');
