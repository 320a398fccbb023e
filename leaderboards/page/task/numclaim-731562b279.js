/* finbench leaderboard */
finbench("task/numclaim-731562b279", '[[12,0.06897,0.02326,0.12088,null,0.07,82.8,1051.4,3,0,null,null,null,0.06897]]');
