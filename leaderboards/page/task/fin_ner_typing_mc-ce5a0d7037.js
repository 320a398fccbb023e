/* finbench leaderboard */
finbench("task/fin_ner_typing_mc-ce5a0d7037", '[[178,0.24632,0.21714,0.27628,null,1.0,1013.8,157.96,3,0,null,null,null,null]]');
