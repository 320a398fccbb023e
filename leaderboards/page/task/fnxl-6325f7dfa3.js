/* finbench leaderboard */
finbench("task/fnxl-6325f7dfa3", '[[87,0.27098,0.24208,0.29968,null,0.9019,356.6,606.0,3,0.0,null,1,null,0.26961],[178,0.0,0.0,0.00502,null,0.0008,707.8,305.34,3,0,null,null,null,0.0]]');
