/* finbench leaderboard */
finbench("task/fomc-d1a61ab2e5", '[[12,0.37606,0.30125,0.44476,null,1.0,931.8,75.8,3,0.0,null,1,null,0.37606],[13,0.04545,0.0,0.09524,null,0.18,94.1,750.5,3,0,null,null,null,0.05797]]');
