/* finbench leaderboard */
finbench("task/xfinbench_calc-7ec89ab682", '[[12,0.0,0.0,0.03699,null,0.14,179.9,817.7,3,0,null,null,null,0.0]]');
