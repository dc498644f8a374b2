# Triton starts each model's process by bash, which reads this first (BASH_ENV): the server's allocator, which is the first of the list, is
# not for the models' processes.
LD_PRELOAD=${LD_PRELOAD#*:}
unset BASH_ENV
# The server's stack is for the threads of its own that read requests.
ulimit -S -s 8192
