/* finbench leaderboard */
finbench("task/tatqa-69ea0e9af9", '[[18,0.06667,0.0066,0.43449,null,1.0,359.5,1844.33,3,0.0008,null,1,null,0.06667],[19,0.03333,0.00339,0.25928,null,0.7667,232.0,2857.67,0,0,null,null,null,0.06667]]');
