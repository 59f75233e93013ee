"""Random histories of everything that can happen to deployments, and what must hold in all of them.

machine.py    what can happen: the rules that hypothesis puts together
promises.py   what must hold after every single write, and at the end
world.py      two pipelines, their targets, and strangers' certificates beside them
queues.py     the queues between router and deployers, as SQS keeps them
aws.py        moto with the sandbox's rules, answered inside this process, and its mishaps
"""
