"""Images of few-shot data sets: DIR/{train,val,test}/CLASS/IMAGE.png."""
