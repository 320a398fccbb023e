/* finbench leaderboard */
finbench("task/xbrl_formula-c9d82918e7", '[[312,0.91489,null,null,null,1.0,473.3,567.02,3,0.0,null,[[226,0.95745,null,null],[227,0.87234,null,null],[228,0.91489,null,null]],0.04255,0.91489]]');
