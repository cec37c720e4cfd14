"""Image data sets as their authors publish them → DIR/{train,val,test}/CLASS/IMAGE.png.

A data set is a module with HOME, FILES and read. Nothing in a source is executed, and nothing is extracted
under a name that the source chooses.
"""
