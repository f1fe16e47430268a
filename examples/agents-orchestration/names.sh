# Read by the scripts beside it: what their machine and its network are called. Tests give them names of their own.
MACHINE=${MACHINE:-ripcord-agents}
NETWORK=${NETWORK:-ripcord-agents}

# there ARGUMENT...: runs its input on the machine, as a script with these arguments; its shell takes them apart once more.
there() { ssh -F ssh_config app bash -euo pipefail -s -- "${@@Q}"; }
