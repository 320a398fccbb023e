/* finbench leaderboard */
finbench("task/xbrl_reason-3c6649463c", '[[313,0.0,null,null,null,0.9833,627.8,383.75,3,0.0,null,[[229,0.0,null,null],[230,0.0,null,null],[231,0.0,null,null]],0.0,0.0]]');
