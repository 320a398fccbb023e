/* finbench leaderboard */
finbench("task/xfinbench_truth-a25c573877", '[[12,0.0,0.0,0.03699,null,0.0,170.1,374.5,3,0,null,null,null,0.0]]');
