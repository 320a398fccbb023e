/* finbench leaderboard */
finbench("task/numclaim-e4a9b7aea3", '[[12,0.44751,0.42197,0.46809,null,1.0,160.7,541.7,3,0.0,null,1,null,0.44751],[13,0.06897,0.02326,0.12088,null,0.07,82.8,1051.4,0,0,null,null,null,0.06897]]');
