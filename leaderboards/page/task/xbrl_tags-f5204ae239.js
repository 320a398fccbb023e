/* finbench leaderboard */
finbench("task/xbrl_tags-f5204ae239", '[[232,0.96715,null,null,null,1.0,420.3,605.52,3,0.0,null,1,null,0.96715]]');
