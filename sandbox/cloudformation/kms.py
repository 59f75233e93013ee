"""KMS: keys and their aliases."""

import json

from sandbox.cloudformation.resource import Properties, Resource, refuse


class Key(Resource):
    type = "AWS::KMS::Key"
    attribute_names = ("Arn", "KeyId")

    def put(self, properties: Properties) -> None:
        kms = self.api("kms")
        policy = json.dumps(properties.pop("KeyPolicy"))
        description = properties.pop("Description", "")
        rotates = properties.pop("EnableKeyRotation", False)
        self.days = properties.pop("PendingWindowInDays", 30)
        tags = [
            {"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in properties.pop("Tags", [])
        ]
        refuse(self.type, properties)
        if not self.exists:
            key = kms.create_key(Policy=policy, Description=description)["KeyMetadata"]
            self.physical_resource_id = key["KeyId"]
            self.attributes = {"Arn": key["Arn"], "KeyId": key["KeyId"]}
        key_id = self.physical_resource_id
        kms.put_key_policy(KeyId=key_id, PolicyName="default", Policy=policy)
        kms.update_key_description(KeyId=key_id, Description=description)
        (kms.enable_key_rotation if rotates else kms.disable_key_rotation)(KeyId=key_id)
        if tags:
            kms.tag_resource(KeyId=key_id, Tags=tags)

    def remove(self) -> None:
        self.api("kms").schedule_key_deletion(
            KeyId=self.physical_resource_id, PendingWindowInDays=self.days
        )


class Alias(Resource):
    type = "AWS::KMS::Alias"
    name_property = "AliasName"
    fixed = ("AliasName",)

    def put(self, properties: Properties) -> None:
        name, key = properties.pop("AliasName"), properties.pop("TargetKeyId")
        refuse(self.type, properties)
        self.physical_resource_id = name
        kms = self.api("kms")
        (kms.update_alias if self.exists else kms.create_alias)(AliasName=name, TargetKeyId=key)

    def remove(self) -> None:
        self.api("kms").delete_alias(AliasName=self.physical_resource_id)
