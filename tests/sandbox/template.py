"""A SAM template with one of everything the sandbox creates, for the sandbox's own tests."""

TEMPLATE = """
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Parameters:
  Retention: {Type: Number, Default: 30}
Conditions:
  Never: !Equals [!Ref Retention, 1]
Globals:
  Function:
    CodeUri: .
    Runtime: python3.13
    Architectures: [arm64]
    MemorySize: 256
    Timeout: 5
    LoggingConfig: {LogFormat: JSON}
Resources:
  Key:
    Type: AWS::KMS::Key
    Properties:
      Description: the bucket's key
      EnableKeyRotation: true
      KeyPolicy:
        Version: "2012-10-17"
        Statement:
          - Effect: Allow
            Principal: {AWS: !Sub "arn:aws:iam::${AWS::AccountId}:root"}
            Action: kms:*
            Resource: "*"
  KeyAlias:
    Type: AWS::KMS::Alias
    Properties: {AliasName: !Sub "alias/${AWS::StackName}", TargetKeyId: !Ref Key}
  Bucket:
    Type: AWS::S3::Bucket
    Properties:
      VersioningConfiguration: {Status: Enabled}
      PublicAccessBlockConfiguration:
        BlockPublicAcls: true
        BlockPublicPolicy: true
        IgnorePublicAcls: true
        RestrictPublicBuckets: true
      OwnershipControls: {Rules: [{ObjectOwnership: BucketOwnerEnforced}]}
      BucketEncryption:
        ServerSideEncryptionConfiguration:
          - BucketKeyEnabled: true
            ServerSideEncryptionByDefault:
              {SSEAlgorithm: "aws:kms", KMSMasterKeyID: !GetAtt Key.Arn}
      LifecycleConfiguration:
        Rules:
          - Id: old-versions
            Status: Enabled
            Prefix: certificates/
            NoncurrentVersionExpiration: {NoncurrentDays: !Ref Retention}
            AbortIncompleteMultipartUpload: {DaysAfterInitiation: 1}
      NotificationConfiguration: {EventBridgeConfiguration: {EventBridgeEnabled: true}}
  BucketPolicy:
    Type: AWS::S3::BucketPolicy
    Properties:
      Bucket: !Ref Bucket
      PolicyDocument:
        Version: "2012-10-17"
        Statement:
          - Effect: Deny
            Principal: "*"
            Action: s3:DeleteBucketPolicy
            Resource: !GetAtt Bucket.Arn
            Condition: {Bool: {"aws:SecureTransport": "false"}}
  DeadLetters:
    Type: AWS::SQS::Queue
  Jobs:
    Type: AWS::SQS::Queue
    Properties:
      VisibilityTimeout: 30
      RedrivePolicy: {deadLetterTargetArn: !GetAtt DeadLetters.Arn, maxReceiveCount: 3}
  JobsPolicy:
    Type: AWS::SQS::QueuePolicy
    Properties:
      Queues: [!Ref Jobs]
      PolicyDocument:
        Version: "2012-10-17"
        Statement:
          - Effect: Allow
            Principal: {Service: events.amazonaws.com}
            Action: sqs:SendMessage
            Resource: !GetAtt Jobs.Arn
            Condition: {ArnEquals: {"aws:SourceArn": !GetAtt Uploads.Arn}}
  OrderedDead:
    Type: AWS::SQS::Queue
    Properties: {FifoQueue: true}
  Ordered:
    Type: AWS::SQS::Queue
    Properties:
      FifoQueue: true
      ContentBasedDeduplication: false
      VisibilityTimeout: 30
      RedrivePolicy: {deadLetterTargetArn: !GetAtt OrderedDead.Arn, maxReceiveCount: 2}
  Uploads:
    Type: AWS::Events::Rule
    Properties:
      EventPattern:
        source: [aws.s3]
        detail-type: [Object Created]
        detail:
          bucket: {name: [!Ref Bucket]}
          object: {key: [{wildcard: "certificates/*/current.json"}, {prefix: deployments/}]}
      Targets: [{Id: jobs, Arn: !GetAtt Jobs.Arn}]
  Work:
    Type: AWS::Serverless::Function
    Properties:
      Handler: functions.work
      ReservedConcurrentExecutions: 2
      Environment: {Variables: {BUCKET: !Ref Bucket, ORDERED: !Ref Ordered}}
      Policies:
        - Version: "2012-10-17"
          Statement:
            - {Effect: Allow, Action: "s3:PutObject", Resource: !Sub "${Bucket.Arn}/*"}
      Events:
        Jobs:
          Type: SQS
          Properties:
            Queue: !GetAtt Jobs.Arn
            BatchSize: 10
            FunctionResponseTypes: [ReportBatchItemFailures]
            ScalingConfig: {MaximumConcurrency: 2}
  Step:
    Type: AWS::Serverless::Function
    Properties:
      Handler: functions.step
      Environment: {Variables: {BUCKET: !Ref Bucket}}
      Events:
        Ordered:
          Type: SQS
          Properties: {Queue: !GetAtt Ordered.Arn, BatchSize: 1}
  Wake:
    Type: AWS::Serverless::Function
    Properties:
      Handler: functions.wake
      Timeout: 1
      Environment: {Variables: {BUCKET: !Ref Bucket}}
      EventInvokeConfig: {MaximumRetryAttempts: 1}
      Events:
        Config:
          Type: EventBridgeRule
          Properties:
            Pattern:
              source: [aws.s3]
              detail-type: [Object Created]
              detail: {object: {key: [config/pipelines.yaml]}}
        Hourly:
          Type: ScheduleV2
          Properties:
            Name: !Sub "${AWS::StackName}-hourly"
            ScheduleExpression: rate(1 hour)
            FlexibleTimeWindow: {Mode: FLEXIBLE, MaximumWindowInMinutes: 15}
            Input: '{"scheduled": true}'
  WorkLogs:
    Type: AWS::Logs::LogGroup
    Properties: {LogGroupName: !Sub "/aws/lambda/${Work}", RetentionInDays: !Ref Retention}
  Unwanted:
    Type: AWS::SNS::Topic
    Condition: Never
  Alerts:
    Type: AWS::SNS::Topic
  DeadLettersAlarm:
    Type: AWS::CloudWatch::Alarm
    Properties:
      AlarmActions: [!Ref Alerts]
      Namespace: AWS/SQS
      MetricName: ApproximateNumberOfMessagesVisible
      Dimensions: [{Name: QueueName, Value: !GetAtt DeadLetters.QueueName}]
      Statistic: Maximum
      Period: 300
      EvaluationPeriods: 1
      Threshold: 0
      ComparisonOperator: GreaterThanThreshold
      TreatMissingData: notBreaching
Outputs:
  BucketName: {Value: !Ref Bucket}
  QueueUrl: {Value: !Ref Jobs}
"""
