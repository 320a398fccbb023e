/* finbench leaderboard */
finbench("task/convfinqa-9b7269e456", '[[139,0.1,0.01103,0.52539,null,0.8,1238.8,749.33,3,0,null,null,null,0.1],[138,0.06667,0.0014,0.7841,null,1.0,1126.1,824.33,0,0.0,null,1,null,0.1]]');
