/* finbench leaderboard */
finbench("task/fiqa_sa_mc-1af63766e4", '[[175,0.44074,0.38806,0.49041,null,1.0,653.3,82.69,3,0,null,null,null,null]]');
