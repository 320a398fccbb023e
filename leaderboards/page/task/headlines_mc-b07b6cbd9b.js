/* finbench leaderboard */
finbench("task/headlines_mc-b07b6cbd9b", '[[178,0.01247,0.0,0.03167,null,1.0,2118.7,18.65,3,0,null,null,null,null]]');
