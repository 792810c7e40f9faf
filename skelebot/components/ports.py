"""Publish the root's ports for every job."""

from dataclasses import replace

from skelebot.component import Component
from skelebot.model import Project, Task


class Ports(Component):
    def task(self, task: Task, project: Project) -> Task:
        return replace(task, ports=(*project.ports, *task.ports))
