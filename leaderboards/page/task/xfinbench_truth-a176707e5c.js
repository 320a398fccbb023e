/* finbench leaderboard */
finbench("task/xfinbench_truth-a176707e5c", '[[12,0.24545,0.18269,0.3,null,0.53,94.8,672.3,3,0.0,null,1,null,0.24545],[13,0.0,0.0,0.03699,null,0.0,170.1,374.5,1,0,null,null,null,0.0]]');
