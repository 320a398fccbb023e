/* finbench leaderboard */
finbench("task/xfinbench_choice-d35149c24b", '[[12,0.14337,0.09929,0.1844,null,0.61,268.7,358.8,3,0,null,null,null,0.14337]]');
