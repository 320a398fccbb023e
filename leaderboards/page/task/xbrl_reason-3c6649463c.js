/* finbench leaderboard */
finbench("task/xbrl_reason-3c6649463c", '[[309,0.0,null,null,null,0.9833,627.8,383.75,3,0.0,null,[[225,0.0,null,null],[226,0.0,null,null],[227,0.0,null,null]],0.0,0.0]]');
