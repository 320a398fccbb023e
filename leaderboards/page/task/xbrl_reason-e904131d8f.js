/* finbench leaderboard */
finbench("task/xbrl_reason-e904131d8f", '[[139,0.03333,null,null,null,1.0,386.4,1604.0,3,0,null,null,null,0.03333],[138,0.0,null,null,null,0.7333,317.3,1953.0,0,0.0,null,1,null,0.0]]');
