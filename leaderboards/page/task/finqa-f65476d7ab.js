/* finbench leaderboard */
finbench("task/finqa-f65476d7ab", '[[138,0.0,0.0,0.12456,null,1.0,324.3,3173.67,2,0.0048,null,1,null,0.0],[139,0.0,0.0,0.12456,null,0.6667,409.2,2515.33,3,0,null,null,null,0.0]]');
