"""What AWS refuses and moto accepts, enforced inside moto's own process.

One module per AWS service. Each names, in `REPLACED`, the moto classes it corrects and the methods
it puts in their place; nothing else of moto is touched. `install()` puts them all in place. It must
run before the moto server answers its first request.
"""


def install() -> None:
    """Put every rule in place. Calling it again changes nothing."""
    # Imported here: moto takes half a second to import, and only a sandbox needs it.
    from sandbox.rules import (
        acm,
        apigateway,
        cloudfront,
        cloudwatch,
        elbv2,
        route53,
        s3,
        secretsmanager,
        ssm,
        statemanager,
    )

    every = (
        acm,
        apigateway,
        cloudfront,
        cloudwatch,
        elbv2,
        route53,
        s3,
        secretsmanager,
        ssm,
        statemanager,
    )
    for service in every:
        for owner, methods in service.REPLACED.items():
            for name, method in methods.items():
                setattr(owner, name, method)
