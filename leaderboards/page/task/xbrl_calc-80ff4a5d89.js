/* finbench leaderboard */
finbench("task/xbrl_calc-80ff4a5d89", '[[311,0.0,null,null,null,1.0,682.2,378.37,3,0.0,null,[[223,0.0,null,null],[224,0.0,null,null],[225,0.0,null,null]],0.0,0.0]]');
