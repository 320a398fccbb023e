/* finbench leaderboard */
finbench("task/headlines-996c069ace", '[[162,0.84495,0.67202,0.88266,null,1.0,1283.4,30.79,3,0.0013,null,1,null,0.84495]]');
