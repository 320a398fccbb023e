/* finbench leaderboard */
finbench("task/fiqa_sa_mc-1af63766e4", '[[178,0.44074,0.38806,0.49041,1,1.0,653.3,82.69,3,0,null,null,null,null],[141,0.37608,0.31992,0.42918,1,1.0,443.1,116.69,2,0,null,null,null,null]]');
