/* finbench leaderboard */
finbench("task/fomc_mc-238bdac061", '[[178,0.15755,0.13424,0.18203,null,1.0,728.5,98.89,3,0,null,null,null,null]]');
