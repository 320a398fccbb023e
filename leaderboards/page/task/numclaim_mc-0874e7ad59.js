/* finbench leaderboard */
finbench("task/numclaim_mc-0874e7ad59", '[[178,0.46728,0.42976,0.50838,null,1.0,2003.0,42.44,3,0,null,null,null,null]]');
