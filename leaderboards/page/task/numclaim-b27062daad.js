/* finbench leaderboard */
finbench("task/numclaim-b27062daad", '[[12,0.44751,0.42197,0.46809,null,1.0,773.7,112.5,3,0.0,null,1,null,0.44751],[13,0.06897,0.02326,0.12088,null,0.07,82.8,1051.4,3,0,null,null,null,0.06897]]');
