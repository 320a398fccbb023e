/* finbench leaderboard */
finbench("task/xfinbench_choice-48b1243e94", '[[12,0.16,0.12069,0.19549,null,0.93,600.6,160.5,3,0.0,null,1,null,0.16],[13,0.14337,0.09929,0.1844,null,0.61,268.7,358.8,3,0,null,null,null,0.14337]]');
