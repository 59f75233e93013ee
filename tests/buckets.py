"""A bucket as template.yaml makes it, as far as the store needs it."""

from certrail.aws import Aws
from certrail.store import Store


def make_bucket(name: str, aws: Aws, *, encrypted: bool = True) -> Store:
    s3 = aws.s3()
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    if encrypted:
        s3.put_bucket_encryption(
            Bucket=name,
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]
            },
        )
    return Store(name, aws)
