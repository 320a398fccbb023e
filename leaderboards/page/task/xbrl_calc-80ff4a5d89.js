/* finbench leaderboard */
finbench("task/xbrl_calc-80ff4a5d89", '[[307,0.0,null,null,null,1.0,682.2,378.37,3,0.0,null,[[219,0.0,null,null],[220,0.0,null,null],[221,0.0,null,null]],0.0,0.0]]');
