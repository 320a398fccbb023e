/* finbench leaderboard */
finbench("task/xfinbench_choice-ca65d16960", '[[12,0.16,0.12069,0.19549,null,0.93,100.9,955.7,3,0.0,null,1,null,0.16],[13,0.14337,0.09929,0.1844,null,0.61,268.7,358.8,1,0,null,null,null,0.14337]]');
