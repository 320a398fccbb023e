/* finbench leaderboard */
finbench("task/finer_ord-282947e08a", '[[168,0.0,0.0,0.10151,null,0.0,951.2,80.08,3,0,null,null,null,0.0]]');
