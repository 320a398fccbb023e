/* finbench leaderboard */
finbench("task/xfinbench_truth-851180a939", '[[12,0.23853,0.17647,0.29508,null,0.52,568.9,112.0,3,0.0,null,1,null,0.23853],[13,0.0,0.0,0.03699,null,0.0,170.1,374.5,3,0,null,null,null,0.0]]');
