"""SSM: documents."""

import json

from sandbox.cloudformation.resource import Properties, Resource, refuse


class Document(Resource):
    """A changed one becomes a new version, which is the default (`UpdateMethod: NewVersion`)."""

    type = "AWS::SSM::Document"
    name_property = "Name"
    fixed = ("Name", "DocumentType")

    def put(self, properties: Properties) -> None:
        ssm = self.api("ssm")
        content = json.dumps(properties.pop("Content"))
        name = properties.pop("Name", self.name)
        kind = {"TargetType": properties.pop("TargetType")}
        method = properties.pop("UpdateMethod")
        document_type = properties.pop("DocumentType")
        refuse(self.type, properties)
        if not self.exists:
            ssm.create_document(Content=content, Name=name, DocumentType=document_type, **kind)
            self.physical_resource_id = name
        elif content != json.dumps(self.properties["Content"]):
            if method != "NewVersion":
                raise ValueError("the sandbox knows UpdateMethod NewVersion only")
            made = ssm.update_document(
                Content=content, Name=name, DocumentVersion="$LATEST", **kind
            )["DocumentDescription"]
            ssm.update_document_default_version(Name=name, DocumentVersion=made["DocumentVersion"])

    def remove(self) -> None:
        self.api("ssm").delete_document(Name=self.physical_resource_id)
