/* finbench leaderboard */
finbench("task/tfns_mc-c0dbaed1d2", '[[178,0.23152,0.21487,0.24832,null,1.0,124.9,482.04,3,0,null,null,null,null],[141,0.17066,0.15096,0.19008,null,1.0,444.8,128.59,3,0,null,null,null,null]]');
