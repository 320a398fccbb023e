/* finbench leaderboard */
finbench("task/fnxl-6325f7dfa3", '[[174,0.0,0.0,0.00502,null,0.0008,707.8,305.34,3,0,null,null,null,0.0]]');
