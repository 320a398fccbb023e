/* finbench leaderboard */
finbench("task/xfinbench_calc-7bbe09daa4", '[[12,0.01,0.00177,0.05449,null,0.97,358.7,410.0,3,0.0,null,1,null,0.01],[13,0.0,0.0,0.03699,null,0.14,179.9,817.7,3,0,null,null,null,0.0]]');
