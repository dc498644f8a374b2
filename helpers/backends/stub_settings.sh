# Triton starts each model's process by bash, which reads this first (BASH_ENV): the server's allocator, which is the first of the list, is
# not for the models' processes.
LD_PRELOAD=${LD_PRELOAD#*:}
unset BASH_ENV
