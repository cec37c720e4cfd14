"""Image data sets as others publish them → DIR/{train,val,test}/CLASS/IMAGE.png.

Nothing in a source is executed, and nothing is extracted under a name of its choosing.

| file | what |
|---|---|
| omniglot.py, cifar_fs.py, fc100.py, mini_imagenet.py, tiered_imagenet.py | a data set: HOME, files, read |
| npz.py | arrays that anybody may have |
| cifar100.py | the archive that CIFAR-FS and FC100 are made of |
| published.py | the files of a data set: on their server, or carried here; their checksums |
| picture.py | an image on its way, and what the formats share |
| tree.py | writes the images: all of them, or nothing |
"""
